"""One thin Kubeflow component per step: unwrap paths, call one function, return."""
