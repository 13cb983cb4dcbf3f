"""Optuna's dashboard, and the comparison and the best configurations beside it, in one server.

command.py   ``hpo dashboard``                      server.py   puts it together and serves it
guard.py     who gets in, from where, to do what    login.py    the password, sessions, tries
live.py      comparisons kept up to date            pages.py    our pages, under /hpo/
"""
