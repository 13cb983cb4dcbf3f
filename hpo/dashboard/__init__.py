"""Optuna's dashboard with our pages beside it, in one server; ``hpo dashboard`` is in :mod:`hpo.cli.dashboard`.

server.py            puts everything together and serves it     guard.py         checks every request, sets headers
pages.py             list of experiments, routes                web.py           templates, JSON, compression, links
experiment_pages.py  an experiment's page and what it polls     overview.py      numbers of its first screen
figure_data.py       its figures, made when they are asked for  progress.py      speed, time left, workers alive
sparkline.py         small curves for a table's cell            live.py          keeps numbers until something changes
login.py, login_pages.py  password, sessions, tries             optuna_pages.py  Optuna's pages as served here
"""
