"""The data sets: digits, CIFAR, ImageNet, and folders of images."""
