#!/bin/sh
# Make sure that FOLDER is a virtual environment of a Python that foldvote supports, with pip: sh envs/make_venv.sh FOLDER [PYTHON]
# An environment that works stays as it is. Without PYTHON, the first suitable Python on the PATH is taken.
folder=$1
asked=$2

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; }
version() { "$1" -c 'import sys; print(".".join(map(str, sys.version_info[:3])))' 2>/dev/null; }

clear=
if [ -e "$folder" ] || [ -L "$folder" ]; then
    if fits "$folder/bin/python"; then
        "$folder/bin/python" -m pip --version >/dev/null 2>&1 && exit 0
    elif [ -n "$(version "$folder/bin/python")" ]; then
        echo "$folder holds Python $(version "$folder/bin/python"), and foldvote needs 3.11, 3.12 or 3.13: remove it with 'make clean', then run make again" >&2
        exit 1
    elif [ -f "$folder/pyvenv.cfg" ]; then
        clear=--clear # its Python has been removed, or was never put there
    fi
fi

chosen=
found=
seen=
if [ -n "$asked" ]; then set -- "$asked"; else set -- python3 python3.13 python3.12 python3.11 python; fi
for name; do
    if fits "$name"; then
        # Debian and Ubuntu have Pythons that cannot make an environment.
        if "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            chosen=$name
            break
        fi
        found=${found:-$name}
    elif [ -n "$(version "$name")" ]; then
        seen="$seen${seen:+, }$name is $(version "$name")"
    fi
done

if [ -z "$chosen" ] && [ -n "$found" ]; then
    short=$(version "$found" | cut -d. -f1,2)
    cat >&2 <<END
$found (Python $short) cannot make a virtual environment: its modules venv and ensurepip are missing. Install them, then run make again:
    Debian, Ubuntu    sudo apt install python$short-venv
    elsewhere         uv venv --seed --python 3.12 $folder
END
    exit 1
elif [ -z "$chosen" ]; then
    fault="none is on the PATH"
    [ -n "$asked" ] && fault="$asked is none of them"
    cat >&2 <<END
foldvote needs Python 3.11, 3.12 or 3.13, and $fault${seen:+ ($seen)}. Install one, then run make again:
    Debian, Ubuntu    sudo apt install python3 python3-venv    (Debian 12, Ubuntu 24.04 or later)
    macOS             brew install python@3.12
    conda             conda create -n foldvote python=3.12 && conda activate foldvote
    uv                uv venv --seed --python 3.12 $folder
One that is not on the PATH is named by make PYTHON=/path/to/python3.12
END
    exit 1
fi

echo "Python $(version "$chosen") ($chosen) makes $folder"
"$chosen" -m venv $clear "$folder" || {
    echo "$folder could not be made by $chosen -m venv; its message is above" >&2
    exit 1
}
