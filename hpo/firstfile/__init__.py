"""What ``hpo init`` writes: a first study file with comments.

draft.py     a study file in the making and its TOML text     entries.py    entries of [space] from other tools' ranges
trainer.py   for a trainer with a configuration               program.py    for a program, from its --help
wandb.py katib.py hydra.py ray_tune.py optuna_json.py         one reader for each other tool
convert.py   which of them a file is for
"""
