// What TensorRT's headers take from CUDA's: two opaque types. Tests compile the plugin with this
// file in place of CUDA's, so they need no toolkit, and the plugin can call nothing of CUDA itself.
#pragma once

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
