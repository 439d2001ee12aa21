# The main profile: training, export, evaluation, registry client, gateway.
#
# components/images/build builds it. It downloads the locked wheels with the caller's own pip, under
# the caller's own pip configuration, and hands them over as the image WHEELS. So this build needs
# no network, no certificate and no secret, and no index is named here.
#
# BASE is any image with glibc, CPython 3.11, its venv module and pip.
ARG BASE=python:3.11-slim-bookworm
ARG WHEELS=matjip-wheels:latest

FROM ${WHEELS} AS wheels

FROM ${BASE}

# An environment of its own: Debian's Python refuses packages from pip.
RUN python3 -m venv /opt/matjip
# KFP calls `python3` and `sh`. A cluster may choose any user id, which has no home and no name.
ENV PATH=/opt/matjip/bin:${PATH} \
    HOME=/tmp \
    USER=matjip \
    PYTHONUNBUFFERED=1

# Torch comes first, as in `make setup`; then the lock; pip compiles both, so that imports are fast.
# setuptools stands before the rest because a locked package may be a source archive.
RUN --mount=type=bind,from=wheels,target=/mnt/wheels \
    --mount=type=bind,source=locks,target=/mnt/locks \
    locked="pip install --quiet --no-cache-dir --no-index --find-links=/mnt/wheels" \
    && sed -n '/^setuptools==/,/[^\\]$/p' /mnt/locks/main.txt > /tmp/setuptools.txt \
    && $locked --no-deps --require-hashes -r /tmp/setuptools.txt \
    && $locked "$(grep '^torch==' /mnt/locks/main.in)" \
    && $locked --no-deps --require-hashes --use-pep517 --no-build-isolation -r /mnt/locks/main.txt \
    && rm /tmp/setuptools.txt

# The build writes into the mount, which forgets it.
RUN --mount=type=bind,target=/mnt/source,rw \
    pip install --quiet --no-cache-dir --no-deps --no-build-isolation /mnt/source \
    && pip check

USER 10001:10001
WORKDIR /tmp
