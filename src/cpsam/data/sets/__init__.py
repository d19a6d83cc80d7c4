"""Loads each data set: digits, CIFAR, ImageNet, folders of images, torch Datasets."""
