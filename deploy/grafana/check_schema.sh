#!/bin/sh
# Checks the dashboards by Grafana's own types: npm's @grafana/schema and the TypeScript compiler. Needs npm.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
npm install --silent --no-audit --no-fund @grafana/schema@13.2.3 typescript@5 > /dev/null

number=0
for file in "$here"/dashboards/*.json; do
  number=$((number + 1))
  { echo "import type {Dashboard} from '@grafana/schema';"
    # In brackets: `satisfies` may not begin a line.
    echo 'export const dashboard = ('; cat "$file"; echo ') satisfies Partial<Dashboard>;'; } > "dashboard$number.ts"
done
npx tsc --noEmit --skipLibCheck --strict --moduleResolution bundler --module esnext --target es2022 ./*.ts
echo "$number dashboards are what Grafana's types say."
