// The only macros of the core.
//
// GRACE_HD          function usable on host and device (math/ headers).
// GRACE_DEVICE      code of a device kernel (device/kernel.hpp): device only under nvcc, plain C++ for the emulated
// device. GRACE_FORCEINLINE always inlined: nothing of math/ may be emitted out of line, because the CPU kernels are
// compiled
//                   once per instruction set and the linker would keep one copy for all machines.
// GRACE_ISA         namespace of the instruction set a translation unit is compiled for.
#pragma once

#if defined(__CUDACC__)
#define GRACE_HD __host__ __device__
#define GRACE_DEVICE __device__ __forceinline__
#define GRACE_FORCEINLINE __forceinline__
#else
#define GRACE_HD
#define GRACE_DEVICE inline
#define GRACE_FORCEINLINE inline __attribute__((always_inline))
#endif

#ifndef GRACE_ISA
#define GRACE_ISA isa_portable
#endif
