"""Lists in YAML files beside this one whose entries all have the same keys: recipes' findings, climbs' findings, engines that were not run."""

import yaml


def entries(path, name, keys):
    """The list `name` of a YAML file, [] where it is empty; ValueError where one of its entries has other keys."""
    with open(path, encoding="utf-8") as f:
        listed = yaml.safe_load(f)[name] or []
    for entry in listed:
        if set(entry) != keys:
            raise ValueError(f"{path}: {name}: expected the keys {sorted(keys)}, found {sorted(entry)}")
    return listed
