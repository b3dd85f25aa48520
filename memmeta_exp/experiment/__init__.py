"""From a configuration to live objects: the builder, the train step, evaluators and analytic problems."""
