#!/bin/sh
# Stands in for the gateway in the tests of the harness: takes the gateway's arguments
# (run CONFIG --ready-file PATH) and becomes the test binary in its role of double.
HUB_DOUBLE_CONFIG="$2" HUB_DOUBLE_READY="$4" exec "$HUB_DOUBLE_EXE" --exact double --nocapture
