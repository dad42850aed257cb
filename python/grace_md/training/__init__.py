"""Fitting GRACE models: data, loss, loop, checkpoints, fine-tuning and export. `grace-md train` runs it.

from grace_md.training.config import load_config
from grace_md.training.run import train
train(load_config("run.yaml"))
"""
