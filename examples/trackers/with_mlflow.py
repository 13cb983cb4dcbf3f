"""A program whose trials are runs of MLflow.

python with_mlflow.py         # once by hand: MLflow makes its database, which several trials must not do at once
hpo launch with_mlflow.toml --workers 2
"""

import argparse
import os

import mlflow

import hpo

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=5)
args = parser.parse_args()

mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"))
mlflow.set_experiment(os.environ.get("HPO_EXPERIMENT", "by-hand"))
name = f"{os.environ['HPO_STUDY']}-{os.environ['HPO_TRIAL']}" if "HPO_TRIAL" in os.environ else "by-hand"
tags = {name: value for name, value in os.environ.items() if name in ("HPO_STUDY", "HPO_TRIAL", "HPO_ATTEMPT")}
with mlflow.start_run(run_name=name, tags=tags):
    mlflow.log_params(vars(args))
    point = 3.0
    for epoch in range(1, args.epochs + 1):
        point -= args.lr * 2 * point
        mlflow.log_metric("loss", point**2, step=epoch)
        hpo.report(loss=point**2, epoch=epoch)
