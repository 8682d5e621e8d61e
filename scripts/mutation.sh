#!/usr/bin/env bash
# A mutation run over one room of the package with mutmut: which changes of the code no test sees.
#
#   scripts/mutation.sh ROOM [mutmut's arguments]
#
#   scripts/mutation.sh objectives                 all mutants of the room
#   scripts/mutation.sh data 'w2s_ray.data.batches*'   those of one file
#
# Takes minutes to an hour; not part of CI. It works on a copy of the committed and uncommitted
# files in $MUTATION_FOLDER (default: a folder in the temporary files, kept between runs, so that a
# second run only tries again what changed). docs/mutation.md has the results and the survivors.
#
# MUTMUT chooses the command (default: mutmut). It must see the package's dependencies.
set -euo pipefail

room=${1:?"a room: objectives, data, store or plan"}
shift
case $room in
  objectives) tests="tests/objectives tests/golden/test_functions.py" ;;
  data) tests="tests/data tests/golden/test_functions.py" ;;
  store) tests="tests/store" ;;
  plan) tests="tests/plan tests/golden/test_keys.py tests/invariants/test_identity.py" ;;
  *) echo "mutation: no room '$room'; one of objectives, data, store, plan" >&2; exit 2 ;;
esac
case $room in  # processes of their own do not see the mutant, or take long
  data) leave_out="tests/data/test_shared.py" ;;
  store) leave_out="tests/store/test_processes.py" ;;
  *) leave_out="" ;;
esac

here=$(cd "$(dirname "$0")/.." && pwd)
folder=${MUTATION_FOLDER:-${TMPDIR:-/tmp}/w2s-ray-mutation}/$room
mkdir -p "$folder"
cd "$here"
for part in w2s_ray tests study_specs benchmarks docs pyproject.toml README.md; do
  rm -rf "${folder:?}/$part"
  cp -a "$part" "$folder/"
done
{
  echo "[mutmut]"
  echo "source_paths=w2s_ray"
  echo "only_mutate=w2s_ray/$room/*.py"
  printf 'also_copy=\n  study_specs\n  benchmarks\n  docs\n  README.md\n'
  echo "pytest_add_cli_args_test_selection="
  for path in $tests; do echo "  $path"; done
  printf 'pytest_add_cli_args=\n  -q\n  --hypothesis-seed=0\n  -p\n  no:cacheprovider\n'
  for path in $leave_out; do printf '  --ignore\n  %s\n' "$path"; done
} > "$folder/setup.cfg"
cd "$folder"
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
"${MUTMUT:-mutmut}" run --max-children "${JOBS:-1}" "$@"
"${MUTMUT:-mutmut}" results > survivors.txt || true
echo "mutation: survivors are listed in $folder/survivors.txt; mutmut show NAME, there, prints one"
