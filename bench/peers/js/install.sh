#!/usr/bin/env bash
# Installs jax-js and TensorFlow.js beside this file (about 310 MB); `npm run bench js` finds them.
set -euo pipefail
cd "$(dirname "$0")"
npm install --no-package-lock --no-audit --no-fund --ignore-scripts
