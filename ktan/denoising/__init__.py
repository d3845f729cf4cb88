"""Shrinkage of noisy answers: post-processing, free of charge."""

from ktan.denoising.denoise import Denoising, Shrinkage, denoise
from ktan.denoising.posterior import posterior_mean
from ktan.denoising.simplex import project_to_simplex

__all__ = ["Denoising", "Shrinkage", "denoise", "posterior_mean", "project_to_simplex"]
