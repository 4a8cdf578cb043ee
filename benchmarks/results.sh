#!/usr/bin/env bash
# The sweeps behind docs/results/h200, most telling first. Each goes on by name: run this again after an interruption.
#     bash benchmarks/results.sh [OUTPUT_DIR]
# Then: attnsweep-report OUTPUT_DIR/h200, python benchmarks/protocol.py OUTPUT_DIR/*
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-outputs}
sweep() { python3 -c 'from attnsweep.cli import main; raise SystemExit(main())' output_dir="$out" "$@" || [ $? -lt 128 ] || exit; }

# Standard cells, load included: what they cost, burst against load, and cuDNN beside NVIDIA's own table
sweep name=load impl=sdpa_cudnn,sdpa_flash,fa2 scenario=prefill timing=standard timing.replicates=1
sweep name=load impl=sdpa_cudnn,sdpa_flash,fa2 scenario=flux scenario.text_len=512 timing=standard timing.replicates=1
gqa=(scenario=prefill scenario.batch_size=1 scenario.num_heads=64 scenario.num_kv_heads=8 "scenario.seq_len=2048,4096,8192,16384")
sweep name=nvidia impl=sdpa_cudnn,ceiling_matmul "${gqa[@]}" scenario.causal=true,false timing=standard timing.replicates=1
sweep name=nvidia impl=sdpa_cudnn "${gqa[@]}" scenario.direction=bwd timing=standard timing.replicates=1

# Three processes a cell: the spread between them, and an implementation against its twin
three=(timing=standard timing.sustained=false)
sweep name=h200 impl=sdpa_cudnn,sdpa_cudnn_twin,sdpa_flash,fa2 scenario=flux,prefill,decode "${three[@]}" --config-dir "$here/twins"
sweep name=h200 impl=flex compile=default scenario=flux,prefill,decode "${three[@]}"

# The rest of the table, and what compiling adds
sweep name=h200 impl=naive,sdpa_efficient,xformers scenario=prefill,decode,flux timing=quick
sweep name=compile impl=sdpa_flash,sdpa_cudnn compile=eager,default scenario=prefill timing=quick
