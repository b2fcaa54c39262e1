# create_release.sh RELEASE BUNDLE SYSTEM_SITE: unpack a bundle and make an empty environment of it.
# An interrupted release has no `.complete` and is made again from the start.
set -eu
release=$1 bundle=$2 system_site=$3
# A run whose connection was cut may still be at work here: its pip holds this lock.
mkdir -p "$(dirname "$release")"
exec 9>"$(dirname "$release")/.lock"
flock -w 900 9
rm -rf "$release"
mkdir -p "$release/bundle"
tar -xf "$bundle" -C "$release/bundle"
rm -f "$bundle"
if [ "$system_site" = yes ]; then
    python3 -m venv --without-pip --system-site-packages "$release"
else
    python3 -m venv --without-pip "$release"
fi
