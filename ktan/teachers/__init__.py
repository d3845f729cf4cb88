"""Teachers as files and as models: card, folder, alignment of hints, stacked answers."""

from ktan.teachers.alignment import Alignment, Frame
from ktan.teachers.card import CardTap, Mode, TeacherCard, TrainingPrivacy
from ktan.teachers.folder import (
    FILES,
    TSL_FILE,
    WEIGHTS_FILE,
    folder_contents,
    read_alignments,
    read_tensors,
    read_weights,
    require_free,
    write_folder,
)
from ktan.teachers.local import LocalTeacher
from ktan.teachers.models import TeacherModels
from ktan.teachers.stack import Stack

__all__ = [
    "FILES",
    "TSL_FILE",
    "WEIGHTS_FILE",
    "Alignment",
    "CardTap",
    "Frame",
    "LocalTeacher",
    "Mode",
    "Stack",
    "TeacherCard",
    "TeacherModels",
    "TrainingPrivacy",
    "folder_contents",
    "read_alignments",
    "read_tensors",
    "read_weights",
    "require_free",
    "write_folder",
]
