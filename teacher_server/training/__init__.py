"""Training of private teachers: ensembles of shards, DP-SGD, and single ones."""

from teacher_server.training.integrity import verify_charged, verify_folder
from teacher_server.training.options import TeacherOptions
from teacher_server.training.train import Custody, train_teacher

__all__ = ["Custody", "TeacherOptions", "train_teacher", "verify_charged", "verify_folder"]
