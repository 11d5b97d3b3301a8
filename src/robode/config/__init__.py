"""From overrides and YAML files to a checked configuration, and from a node of it to an object. No torch."""

import warnings

# OmegaConf 2.4 tells Hydra 1.3 so at each composition, and nobody else can do anything about it.
warnings.filterwarnings("ignore", "register_new_resolver|Implicit conversion from Version", module="hydra")
