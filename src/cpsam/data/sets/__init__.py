"""Loads each data set: digits, cued digits, CIFAR, ImageNet, folders of images, torch Datasets."""
