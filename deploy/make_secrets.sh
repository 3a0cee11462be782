#!/bin/sh
# A private authority, a certificate and a token for every part, and Redis's users. Nothing leaves this machine.
#
#   make_secrets.sh DIRECTORY [HOST...]    HOSTs are further names of the replay service and of Redis
#
# What it made before stays as it is; remove DIRECTORY to begin anew. DIRECTORY/<part> is all that the part may see.
set -eu
umask 022
root=$1
shift
days=825

[ ! -e "$root/ca/done" ] || { echo "The secrets in $root are there already."; exit 0; }
mkdir -p "$root"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

authority() {
  mkdir -p "$root/ca"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days $days -subj '/CN=vdfd authority' \
      -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout "$root/ca/ca.key" -out "$root/ca/ca.crt"
  chmod 600 "$root/ca/ca.key"
}

names() {  # of a part, as alternative names of its certificate
  printf 'DNS:%s,DNS:localhost,IP:127.0.0.1' "$1"
  case $1 in replay|redis) shift; for host in "$@"; do printf ',DNS:%s' "$host"; done;; esac
}

certificate() {
  part=$1; shift
  mkdir -p "$root/$part"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$part" \
      -keyout "$root/$part/tls.key" -out "$scratch/$part.csr"
  printf 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' \
      "$(names "$part" "$@")" > "$scratch/$part.ext"
  openssl x509 -req -in "$scratch/$part.csr" -CA "$root/ca/ca.crt" -CAkey "$root/ca/ca.key" -CAserial "$scratch/serial" \
      -CAcreateserial -days $days -extfile "$scratch/$part.ext" -out "$root/$part/tls.crt"
  cp "$root/ca/ca.crt" "$root/$part/ca.crt"
  # Readable for the container's user, whoever that is: only the part's own container has the folder.
  chmod 644 "$root/$part/tls.key"
}

hash() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

authority
for part in replay redis actor evaluator learner observer operator; do certificate "$part" "$@"; done
: > "$root/replay/tokens"
for role in actor evaluator learner observer operator; do
  token=$(openssl rand -hex 32)
  printf '%s' "$token" > "$root/$role/token"
  printf '%s %s\n' "$role" "$(hash "$token")" >> "$root/replay/tokens"
done
cp "$root/observer/token" "$root/replay/token"  # for its own health check

password=$(openssl rand -hex 32)
printf '%s' "$password" > "$root/replay/redis_password"
# Nobody can log in as default, but Redis itself replays its append-only file as that user: without permissions
# every transaction in it would be refused, and lost, when Redis starts.
{ echo 'user default off resetpass ~* &* +@all'
  printf 'user vdfd on #%s ~* &* +@all -@admin -@dangerous +info\n' "$(hash "$password")"; } > "$root/redis/users.acl"

mkdir -p "$root/grafana"
openssl rand -base64 18 | tr -d '\n' > "$root/grafana/admin_password"
touch "$root/ca/done"
echo "Made an authority, certificates and tokens in $root."
