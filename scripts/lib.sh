# Shared by the scripts: where things are, how progress and errors are shown. Sourced, not run.
# shellcheck shell=sh

# shellcheck disable=SC2154 # set by the script, its own folder
TOP=$(dirname "$here")
BUILD=$TOP/build
CACHE=${BACKSTOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/backstop}
mkdir -p "$BUILD" "$CACHE" 2>/dev/null || {
	echo "error: cannot create $BUILD or $CACHE" >&2
	exit 2
}
step_started=

# die MESSAGE [REMEDY]: one clear line, exit code 2.
die() {
	printf 'error: %s%s\n' "$1" "${2:+; $2}" >&2
	exit 2
}

# step TEXT: says what begins; done_step: how long it took.
step() {
	step_started=$(date +%s)
	printf '==> %s\n' "$1" >&2
}

done_step() {
	printf '    done in %s s\n' "$(($(date +%s) - step_started))" >&2
}

# last_error LOG: the line of a log that most likely names the cause.
last_error() {
	{ grep -E '^(E:|error|fatal)|[Nn]o space left|rror:' "$1" || tail -n 1 "$1"; } | tail -n 1
}

# tools: what builds the kernel, by version.
tools() {
	clang --version
	rustc --version
	pahole --version
}

# need_space DIR MEGABYTES
need_space() {
	free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$2" ] || die "$1 has $free MB free, $2 MB are needed" "free some space or set BACKSTOP_CACHE"
}

# lock NAME: one at a time across clones; the lock ends with the process.
lock() {
	exec 9>"$CACHE/$1.lock"
	flock -n 9 || {
		echo "    waiting for another run that holds $1" >&2
		flock 9
	}
}

# in_namespace [UNSHARE OPTION...] CMD...: as root in a mount namespace of its own, so that mounts end with the process.
in_namespace() {
	if [ "$(id -u)" = 0 ]; then
		unshare --mount --propagation private "$@"
	else
		# The tool root has files of many users: one mapped id is not enough.
		unshare --map-root-user --map-auto true 2>/dev/null ||
			die "neither root nor able to make a user namespace with the ids of /etc/subuid" \
				"run as root, or install newuidmap and give $(id -un) a range in /etc/subuid and /etc/subgid"
		unshare --map-root-user --map-auto --mount --propagation private "$@"
	fi
}

# in_place_of_linux TREE CMD...: with the kernel tree TREE as build/linux. For ccache, where a file is compiled is
# part of what it is.
in_place_of_linux() {
	mkdir -p "$BUILD/linux"
	# shellcheck disable=SC2016 # expanded inside the namespace
	in_namespace sh -euc 'mount --bind "$2" "$1"; shift 2; exec "$@"' sh "$BUILD/linux" "$@"
}
