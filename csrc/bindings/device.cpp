// grace_md._core: what this build can do with GPUs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings.hpp"
#include "grace/device/cuda_probe.hpp"

namespace py = pybind11;

void bind_device(py::module_& m) {
  m.def(
      "cuda_probe",
      [] {
        const grace::device::CudaProbe& probe = [&]() -> const grace::device::CudaProbe& {
          py::gil_scoped_release release;  // starting the driver takes a while
          return grace::device::cuda_probe();
        }();
        py::dict out;
        out["built"] = probe.built;
        out["n_devices"] = probe.n_devices;
        out["reason"] = probe.reason;
        out["architectures"] = probe.facts.architectures;
        out["names"] = probe.names;
        return out;
      },
      "GPUs that this build can use, asked once per process.\n\n"
      "built: compiled with CUDA; n_devices: GPUs that are visible and supported; reason: why there are none, or "
      "empty;\n"
      "architectures: compute capabilities compiled for (90 is 9.0); names: of the visible GPUs.");
}
