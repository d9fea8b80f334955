"""Options of execution providers and entries of our own, which a session's `config` holds beside the runtime's entries.

Known options are those of ONNX Runtime up to 1.32 (pages of its TensorRT, CUDA and XNNPACK providers) and those that
the agent understands; runtimes of another version may have others.
"""

from __future__ import annotations

from collections.abc import Mapping

PROVIDER, OURS = "provider.", "edgelathe."

_TENSORRT = """
    device_id has_user_compute_stream trt_max_partition_iterations trt_min_subgraph_size trt_max_workspace_size
    trt_fp16_enable trt_bf16_enable trt_int8_enable trt_int8_calibration_table_name
    trt_int8_use_native_calibration_table trt_dla_enable trt_dla_core trt_dump_subgraphs trt_engine_cache_enable
    trt_engine_cache_prefix trt_engine_decryption_enable trt_engine_decryption_lib_path
    trt_force_sequential_engine_build trt_context_memory_sharing_enable trt_layer_norm_fp32_fallback
    trt_timing_cache_enable trt_force_timing_cache trt_detailed_build_log trt_build_heuristics_enable
    trt_sparsity_enable trt_builder_optimization_level trt_auxiliary_streams trt_tactic_sources
    trt_extra_plugin_lib_paths trt_profile_min_shapes trt_profile_max_shapes trt_profile_opt_shapes
    trt_cuda_graph_enable trt_preview_features trt_dump_ep_context_model trt_ep_context_embed_mode
    trt_weight_stripped_engine_enable trt_onnx_model_folder_path trt_engine_hw_compatible trt_op_types_to_exclude
    trt_load_user_initializer
"""
_CUDA = """
    device_id gpu_mem_limit arena_extend_strategy cudnn_conv_algo_search do_copy_in_default_stream
    cudnn_conv_use_max_workspace cudnn_conv1d_pad_to_nc1d enable_cuda_graph enable_skip_layer_norm_strict_mode
    tunable_op_enable tunable_op_tuning_enable tunable_op_max_tuning_duration_ms prefer_nhwc
    use_ep_level_unified_stream use_tf32 fuse_conv_bias sdpa_kernel enable_cudnn
"""

#: Options by provider; of those that are not here nothing is known.
OPTIONS: dict[str, frozenset[str]] = {
    "TensorrtExecutionProvider": frozenset(_TENSORRT.split()),
    "CUDAExecutionProvider": frozenset(_CUDA.split()),
    "XnnpackExecutionProvider": frozenset({"intra_op_num_threads"}),
    "CPUExecutionProvider": frozenset(),
    "TensorRT": frozenset({"fp16", "int8", "sparsity"}),
    "CPU": frozenset(),
}

#: Entries that the agent itself understands, by runtime, and their values; docs/runtimes.md says what they do.
ENTRIES: dict[str, dict[str, tuple[str, ...]]] = {
    "onnxruntime": {"io_binding": ("0", "1")},
    "ai-edge-litert": {"xnnpack": ("1", "0"), "kernels": ("default", "reference")},
    "tflite-runtime": {"xnnpack": ("1", "0"), "kernels": ("default", "reference")},
    "tensorrt": {"trtexec": ("0", "1")},
}


def of_runtime(config: Mapping[str, str]) -> dict[str, str]:
    """The entries that are the runtime's own."""
    return {k: v for k, v in config.items() if not k.startswith((PROVIDER, OURS))}


def of_provider(config: Mapping[str, str]) -> dict[str, str]:
    """The options of the execution provider, by their own names."""
    return {k.removeprefix(PROVIDER): v for k, v in config.items() if k.startswith(PROVIDER)}


def of_agent(config: Mapping[str, str]) -> dict[str, str]:
    """The entries that edgelathe itself understands, by their own names."""
    return {k.removeprefix(OURS): v for k, v in config.items() if k.startswith(OURS)}
