#!/bin/sh
# ptxas_log.sh LOG COMMAND...: runs a compiler whose ptxas is verbose. LOG gets everything it says
# on stderr; what is no report of ptxas (warnings, errors) goes to stderr as well.
log=$1
shift
"$@" 2>"$log"
status=$?
grep -v -e '^ptxas info ' -e ' bytes stack frame, ' "$log" >&2
exit $status
