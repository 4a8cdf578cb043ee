#!/usr/bin/env bash
# The sweeps behind docs/results, in parts, most telling first. Each goes on by name: run it again after an interruption.
#     bash benchmarks/results.sh OUTPUT_DIR PART [OVERRIDE...]        such as: outputs protocol 'gpus=[0,1,2]'
# Then: attnsweep-report OUTPUT_DIR/<sweep>; for the part protocol also python benchmarks/protocol.py OUTPUT_DIR/*
# The part protocol wants a GPU whose neighbours rest: processes of a decode step differ more while others work.
set -uo pipefail
here=$(dirname "$0") # as it was called: it becomes a part of each record's command
out=${1:?a folder for the sweeps}
part=${2:?protocol, compile, everything, fa4_flashinfer, fp16, autotune, fusion or grid}
shift 2
more=("$@")
sweep() {
  python3 -c 'from attnsweep.cli import main; raise SystemExit(main())' output_dir="$out" "$@" ${more[@]+"${more[@]}"} || [ $? -lt 128 ] || exit
}

# XLA compiles and tunes some hundred small programs before the first check of a shape
xla=(pool.check_s=240)

case $part in
protocol)
  # Standard cells, load included: what they cost, burst against load, and cuDNN beside NVIDIA's own table
  one=(timing=standard timing.replicates=1)
  sweep name=load impl=sdpa_cudnn,sdpa_flash,fa2 scenario=prefill "${one[@]}"
  sweep name=load impl=sdpa_cudnn,sdpa_flash,fa2 scenario=flux scenario.text_len=512 "${one[@]}"
  gqa=(scenario=prefill scenario.batch_size=1 scenario.num_heads=64 scenario.num_kv_heads=8 "scenario.seq_len=2048,4096,8192,16384")
  sweep name=nvidia impl=sdpa_cudnn,ceiling_matmul "${gqa[@]}" scenario.causal=true,false "${one[@]}"
  sweep name=nvidia impl=sdpa_cudnn "${gqa[@]}" scenario.direction=bwd "${one[@]}"
  # Three processes a cell: the spread between them, and an implementation against its twin
  three=(timing=standard timing.sustained=false)
  sweep name=h200 impl=sdpa_cudnn,sdpa_cudnn_twin,sdpa_flash,fa2 scenario=flux,prefill,decode "${three[@]}" --config-dir "$here/twins"
  sweep name=h200 impl=flex compile=default scenario=flux,prefill,decode "${three[@]}"
  sweep name=h200 impl=naive,sdpa_efficient,xformers scenario=prefill,decode,flux timing=quick
  ;;
compile)
  # What compiling adds, with cold caches
  TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) sweep name=compile impl=sdpa_flash,sdpa_cudnn,sdpa_math,naive compile=eager,default \
    scenario=prefill timing=quick
  ;;
everything)
  # All that is installed: uncompiled, backward, JAX (which nobody runs uncompiled), compiled
  all=(timing=quick name=everything)
  image='impl=glob(*,exclude=[*decode*,jax*])' text='impl=glob(*,exclude=jax*)' jax='impl=glob(jax*)'
  sweep study=flux "$image" compile=eager "${all[@]}"
  sweep study=llm "$text" compile=eager "${all[@]}"
  sweep study=flux "$image" compile=eager scenario.direction=bwd scenario.text_len=512 "${all[@]}"
  sweep study=llm "$text" scenario=prefill compile=eager scenario.direction=bwd "${all[@]}"
  sweep study=flux "$jax" compile=jit "${all[@]}" "${xla[@]}"
  sweep study=llm "$jax" compile=jit "${all[@]}" "${xla[@]}"
  sweep study=flux "$jax" compile=jit scenario.direction=bwd scenario.text_len=512 "${all[@]}" "${xla[@]}"
  sweep study=llm "$jax" scenario=prefill compile=jit scenario.direction=bwd "${all[@]}" "${xla[@]}"
  sweep study=flux "$image" compile=default "${all[@]}"
  sweep study=llm "$text" compile=default "${all[@]}"
  sweep study=flux "$image" compile=default scenario.direction=bwd scenario.text_len=512 "${all[@]}"
  sweep study=llm "$text" scenario=prefill compile=default scenario.direction=bwd "${all[@]}"
  ;;
fa4_flashinfer)
  # Both beside what they are compared with
  seen=(compile=eager timing=quick name=fa4_flashinfer)
  prefill=flashinfer_prefill_fa3,flashinfer_prefill_fa2
  sweep study=llm impl=fa4,$prefill,flashinfer_decode,flashinfer_decode_tc,fa2,fa2_decode,sdpa_cudnn "${seen[@]}"
  sweep study=flux impl=fa4,$prefill,fa2,sdpa_cudnn "${seen[@]}"
  sweep study=llm scenario=prefill impl=fa4,fa2,sdpa_cudnn scenario.direction=bwd "${seen[@]}"
  sweep study=flux scenario.text_len=512 impl=fa4,fa2,sdpa_cudnn scenario.direction=bwd "${seen[@]}"
  ;;
fp16)
  # What takes no bf16, Pallas' Mosaic-GPU, beside cuDNN in the same dtype
  half=(impl=jax_mosaic_gpu,jax_cudnn compile=jit scenario.dtype=fp16 timing=quick name=fp16)
  sweep study=flux "${half[@]}" "${xla[@]}"
  sweep study=llm "${half[@]}" "${xla[@]}"
  sweep study=llm "${half[@]}" scenario=prefill scenario.direction=bwd "${xla[@]}"
  ;;
autotune)
  sweep study=flux timing=quick compile=max_autotune name=everything
  ;;
fusion)
  sweep study=fusion timing=standard timing.replicates=1
  ;;
grid)
  sweep study=mha_grid sample=600
  sweep study=mha_grid_blocks sample=90
  sweep study=mha_grid_jax sample=100 "${xla[@]}"
  ;;
*)
  echo "no such part: $part" >&2
  exit 2
  ;;
esac
