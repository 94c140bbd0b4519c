#!/usr/bin/env bash
# Installs every client that comes from PyPI or npm, and what drives a browser, one directory each below DIR, and links them in DIR/bin:
#     bash tests/install_clients.sh DIR && REGCACHE_CLIENTS=DIR pytest -m journey
# What is already there in the version named here is left alone.
set -euo pipefail
if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
mkdir -p "$1/bin"
clients=$(cd "$1" && pwd)
# A client's own tools are not to take what the machine's settings would add or hold back.
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy NPM_CONFIG_UPDATE_NOTIFIER=false

# fresh NAME SPEC...: whether SPEC is not yet in DIR/NAME; if so the directory is made anew.
fresh() {
    local home=$clients/$1
    if [ "$(cat "$home/.installed" 2>/dev/null)" = "${*:2}" ]; then return 1; fi
    echo "installing $1: ${*:2}"
    rm -rf "$home"
    mkdir -p "$home"
}

# settled NAME SPEC...: what `fresh` is to find there from now on.
settled() { echo "${*:2}" >"$clients/$1/.installed"; }

# link NAME FILE: FILE is run as NAME.
link() { ln -sfn "$2" "$clients/bin/$1"; }

# python NAME SPEC...: an environment of its own.
python() {
    if ! fresh "$@"; then return; fi
    "$clients/uv/bin/uv" venv -q --clear --python "$(command -v python3)" "$clients/$1"
    "$clients/uv/bin/uv" pip install -q --python "$clients/$1/bin/python" "${@:2}"
    settled "$@"
}

# node NAME SPEC...: a tree of its own.
node() {
    if ! fresh "$@"; then return; fi
    npm install --prefix "$clients/$1" --no-audit --no-fund --no-package-lock --loglevel error "${@:2}"
    settled "$@"
}

if fresh uv uv==0.13.9; then
    python3 -m venv "$clients/uv"
    "$clients/uv/bin/pip" install -q uv==0.13.9
    settled uv uv==0.13.9
fi
link uv "$clients/uv/bin/uv"

python pip pip==26.3
# The one that Python 3.11 came with.
python pip-23 pip==23.2.1
python poetry poetry==2.5.1
# The newest hishel took away what pdm calls.
python pdm pdm==2.29.4 'hishel<2'
python pipenv pipenv==2026.10.3
python pip-tools pip-tools==7.6.2
# The last setuptools whose easy_install asks an index by itself.
python setuptools setuptools==79.0.1
python buildout zc.buildout==6.0.1 zc.recipe.egg==6.0.0
for name in pip poetry pdm pipenv buildout; do link "$name" "$clients/$name/bin/$name"; done
link pip-23 "$clients/pip-23/bin/pip"
for name in pip-compile pip-sync; do link "$name" "$clients/pip-tools/bin/$name"; done
printf '#!/bin/sh\nexec "%s/setuptools/bin/python" "$@"\n' "$clients" >"$clients/bin/setuptools-python"
chmod +x "$clients/bin/setuptools-python"

node npm-10 npm@10.9.9
node npm-11 npm@11.21.2
node yarn-1 yarn@1.22.22
node yarn-berry @yarnpkg/cli-dist@4.18.1
node pnpm-9 pnpm@9.15.9
node pnpm-10 pnpm@10.34.8
node bun bun@1.4.5
for name in npm-10 npm-11 yarn-1 pnpm-9 pnpm-10 bun; do link "$name" "$clients/$name/node_modules/.bin/${name%-*}"; done
link yarn-berry "$clients/yarn-berry/node_modules/.bin/yarn"

# Drives the Chromium that Debian has, and checks what it shows.
node browser playwright-core@1.65.1 axe-core@4.14.1
link playwright-core "$clients/browser/node_modules/playwright-core/cli.js"

# Runs on mono, which Debian has.
node nuget nuget-exe@5.8.0
chmod +x "$clients/nuget/node_modules/nuget-exe/nuget-5.8.0.exe"
link nuget.exe "$clients/nuget/node_modules/nuget-exe/nuget-5.8.0.exe"
