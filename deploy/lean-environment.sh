#!/bin/sh
# Take out of /opt/snowdrop what nothing uses at run time: what builds, and what tests.
set -eu
installed="$(/opt/tools/bin/pip --python /opt/snowdrop/bin/python freeze --all)"
# Flower calls uv only where it may install, which ENV of the image forbids.
for package in setuptools uv; do
  if echo "$installed" | grep -q "^$package=="; then
    /opt/tools/bin/pip --python /opt/snowdrop/bin/python uninstall --yes --quiet "$package"
  fi
done
cd /opt/snowdrop/lib/python3*/site-packages
find . -type d -name tests -prune -exec rm -r {} +
rm -rf torch/test torch/include torch/share
find torch/bin -type f ! -name torch_shm_manager -delete
