"""For tools that still need this file; pyproject.toml has everything."""

from setuptools import setup

setup()
