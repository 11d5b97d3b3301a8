"""From typed words and YAML files to a checked configuration, and from a node of it to an object. No torch."""
