"""Data sets as tensors of samples with unit ids, their split, normalisation and augmentation."""

from ktan.data.augment import Augment, AugmentName
from ktan.data.dataset import Dataset
from ktan.data.normalise import Normalisation
from ktan.data.source import DATASETS, DataSource
from ktan.data.split import Split, SplitRecipe, shards, split

__all__ = [
    "DATASETS",
    "Augment",
    "AugmentName",
    "DataSource",
    "Dataset",
    "Normalisation",
    "Split",
    "SplitRecipe",
    "shards",
    "split",
]
