"""The dependency profiles that component images are built from.

A component names a profile; `pipelines/placement.py` puts the image that the deployment settings
pin for it in its place. ``python`` stands in the name because KFP's local subprocess runner warns
of images without it.
"""

from typing import Final

MAIN: Final = "python-matjip-main"
"""Training, export, evaluation, registry client and gateway: components/images/main.Dockerfile."""
