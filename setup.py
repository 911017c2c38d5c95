"""Lists the packages of the rooms; everything else about the project is in pyproject.toml."""

from setuptools import find_packages, setup

ROOMS = ("dataset", "transforms", "pipeline", "model")

setup(
    packages=[
        f"lengthwise.{package}"
        for room in ROOMS
        for package in find_packages(include=[room, f"{room}.*"])
    ]
)
