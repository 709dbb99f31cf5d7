#!/usr/bin/env bash
# Builds the llm.c peer from a checkout of https://github.com/karpathy/llm.c, given as the first argument: our step.c
# around its train_gpt2.c, with the very command its Makefile would run. `npm run bench gpt2` finds the result.
set -euo pipefail
checkout=$(cd "${1:?usage: install.sh CHECKOUT, a clone of github.com/karpathy/llm.c}" && pwd)
cd "$(dirname "$0")"

commit=$(git -C "$checkout" rev-parse --short HEAD 2>/dev/null || echo unknown)
command=$(make -s -n -C "$checkout" --no-print-directory train_gpt2 | grep -- 'train_gpt2\.c' | tail -1)
command=${command//train_gpt2.c/"$PWD/step.c"}
command=${command//-o train_gpt2/"-o $PWD/step"}
echo "$command -I. -DLLMC_COMMIT=\"$commit\""
(cd "$checkout" && eval "$command -I. -DLLMC_COMMIT='\"$commit\"'")
echo "built llm.c $commit"
