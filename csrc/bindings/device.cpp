// grace_md._core: what this build can do with GPUs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "bindings.hpp"
#include "grace/device/ceilings.hpp"
#include "grace/device/cuda_probe.hpp"

namespace py = pybind11;

void bind_device(py::module_& m) {
  m.def(
      "cuda_probe",
      [] {
        const auto ask = []() -> const grace::device::CudaProbe* {
          py::gil_scoped_release release;  // starting the driver takes a while
          return &grace::device::cuda_probe();
        };
        const grace::device::CudaProbe& probe = *ask();
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
  m.def(
      "cuda_obstacle",
      [](int index) {
        py::gil_scoped_release release;
        return grace::device::cuda_obstacle(grace::device::cuda_probe().facts, index);
      },
      py::arg("index") = 0, "Why this GPU cannot be used, in one sentence; empty if it can.");
  m.def(
      "measure_ceilings",
      [](const std::string& device, double seconds) {
        const grace::Device chosen = grace::parse_device(device);
        grace::device::Ceilings found;
        {
          py::gil_scoped_release release;
          found = grace::device::measure_ceilings(chosen, seconds);
        }
        py::dict out;
        out["device"] = found.device;
        out["copy_bytes"] = found.copy_bytes;
        out["fma_float"] = found.fma_float;
        out["fma_double"] = found.fma_double;
        out["matrix_tf32"] = found.matrix_tf32;
        out["matrix_double"] = found.matrix_double;
        return out;
      },
      py::arg("device"), py::arg("seconds") = 0.05,
      "Rates that a GPU reaches in kernels that do nothing else, for benchmarks; about `seconds` for each.\n\n"
      "copy_bytes: bytes read and written per second; fma_float, fma_double, matrix_tf32, matrix_double: operations "
      "per\n"
      "second of multiply-adds and of the matrix units (0: none). Of an emulated device they mean nothing.");
}
