#!/usr/bin/env bash
# Installs the man page and the shell completions in the usual directories: install-docs.sh install|uninstall SHARE
set -eu
cd "$(dirname "$0")/.."

what=$1
share=$2

place() {
    if [ "$what" = uninstall ]; then
        rm -f "$share/$2"
    elif [ -f "$1" ]; then
        install -D -m 644 "$1" "$share/$2"
    fi
}

place docs/kapo.1 man/man1/kapo.1
place docs/completions/kapo.bash bash-completion/completions/kapo
place docs/completions/_kapo zsh/site-functions/_kapo
place docs/completions/kapo.fish fish/vendor_completions.d/kapo.fish
