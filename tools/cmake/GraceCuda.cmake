# Decides whether the CUDA evaluator is built. A macro, because languages must be enabled in the topmost directory that
# links the result: the top CMakeLists.txt, or that of the plugin when it is built alone.
#
# Reads GRACE_CUDA (AUTO: if a usable nvcc is found, ON, OFF) and GRACE_CUDA_ARCHITECTURES (compute capabilities such as
# "80;90"; empty: those of the GPUs that grace_md is made for, as far as nvcc knows them). Both can also be set in the
# environment, for pip. Sets GRACE_HAVE_CUDA, and GRACE_CUDA_ARCHITECTURE_LIST to the capabilities that are compiled.
set(GRACE_CUDA_OLDEST_TOOLKIT 12.4)

macro(grace_find_cuda)
  set(grace_cuda_default AUTO)
  if(NOT "$ENV{GRACE_CUDA}" STREQUAL "")
    set(grace_cuda_default "$ENV{GRACE_CUDA}")
  endif()
  set(GRACE_CUDA ${grace_cuda_default} CACHE STRING "CUDA evaluator: AUTO, ON or OFF")
  set_property(CACHE GRACE_CUDA PROPERTY STRINGS AUTO ON OFF)
  set(GRACE_CUDA_ARCHITECTURES "$ENV{GRACE_CUDA_ARCHITECTURES}" CACHE STRING
      "Compute capabilities to compile for, such as 80;90 (empty: automatic)")

  set(GRACE_HAVE_CUDA FALSE)
  string(TOUPPER "${GRACE_CUDA}" grace_cuda_wanted)
  if(grace_cuda_wanted STREQUAL "AUTO" OR grace_cuda_wanted MATCHES "^(ON|TRUE|YES|1)$")
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80) # for the compiler check; targets state their own
    endif()
    include(CheckLanguage)
    check_language(CUDA)
    set(grace_cuda_obstacle "")
    if(NOT CMAKE_CUDA_COMPILER)
      set(grace_cuda_obstacle "no usable nvcc found (PATH, or the environment variable CUDACXX)")
    else()
      enable_language(CUDA)
      if(NOT CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA")
        set(grace_cuda_obstacle "${CMAKE_CUDA_COMPILER} is not nvcc")
      elseif(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS GRACE_CUDA_OLDEST_TOOLKIT)
        set(grace_cuda_obstacle
            "nvcc ${CMAKE_CUDA_COMPILER_VERSION} is older than CUDA ${GRACE_CUDA_OLDEST_TOOLKIT}")
      endif()
    endif()
    if(grace_cuda_obstacle STREQUAL "")
      set(GRACE_HAVE_CUDA TRUE)
      grace_cuda_architectures()
      string(REPLACE ";" " " grace_cuda_words "${GRACE_CUDA_ARCHITECTURE_LIST}")
      message(STATUS "CUDA evaluator: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, compute capabilities ${grace_cuda_words}")
    elseif(grace_cuda_wanted STREQUAL "AUTO")
      message(STATUS "CUDA evaluator skipped: ${grace_cuda_obstacle}")
    else()
      message(FATAL_ERROR "GRACE_CUDA=ON: ${grace_cuda_obstacle}; "
                          "install CUDA ${GRACE_CUDA_OLDEST_TOOLKIT} or newer, or set GRACE_CUDA=OFF.")
    endif()
  elseif(grace_cuda_wanted MATCHES "^(OFF|FALSE|NO|0)$")
    message(STATUS "CUDA evaluator skipped: GRACE_CUDA=OFF")
  else()
    message(FATAL_ERROR "GRACE_CUDA must be AUTO, ON or OFF, not '${GRACE_CUDA}'.")
  endif()
endmacro()

macro(grace_cuda_architectures)
  if(GRACE_CUDA_ARCHITECTURES)
    string(REGEX REPLACE "[ ,;]+" ";" GRACE_CUDA_ARCHITECTURE_LIST "${GRACE_CUDA_ARCHITECTURES}")
    foreach(architecture IN LISTS GRACE_CUDA_ARCHITECTURE_LIST)
      if(NOT architecture MATCHES "^[0-9]+$" OR architecture LESS 80)
        message(FATAL_ERROR "GRACE_CUDA_ARCHITECTURES holds compute capabilities from 80 on without a dot, such as "
                            "80;90, not '${architecture}'.")
      endif()
    endforeach()
    list(REMOVE_DUPLICATES GRACE_CUDA_ARCHITECTURE_LIST)
    list(SORT GRACE_CUDA_ARCHITECTURE_LIST COMPARE NATURAL)
  else()
    set(GRACE_CUDA_ARCHITECTURE_LIST 80 90)
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
      list(APPEND GRACE_CUDA_ARCHITECTURE_LIST 100 120)
    endif()
  endif()
endmacro()

# Adds device code to a static library: no separable compilation, so that any C++ linker can link it, and a runtime
# that is linked statically and hidden: torch, in the same process, brings its own.
function(grace_add_cuda_sources target)
  target_sources(${target} PRIVATE ${ARGN})
  # Machine code for every capability, all of it from one PTX, that of the oldest, which other GPUs run: a third of the
  # time of a translation for each, and for 9.0 the same code.
  list(TRANSFORM GRACE_CUDA_ARCHITECTURE_LIST PREPEND "sm_" OUTPUT_VARIABLE machine_code)
  list(JOIN machine_code "," machine_code)
  list(GET GRACE_CUDA_ARCHITECTURE_LIST 0 oldest)
  target_compile_options(
    ${target}
    PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--generate-code=arch=compute_${oldest},code=[${machine_code},compute_${oldest}]>")
  set_target_properties(${target} PROPERTIES CUDA_ARCHITECTURES OFF CUDA_STANDARD 17
                                             CUDA_EXTENSIONS OFF CUDA_SEPARABLE_COMPILATION OFF
                                             CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
  string(REPLACE ";" " " words "${GRACE_CUDA_ARCHITECTURE_LIST}")
  set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_DEFINITIONS "GRACE_CUDA_ARCHITECTURES=\"${words}\"")
  target_link_options(${target} INTERFACE LINKER:--exclude-libs,libcudart_static.a)
  cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
  if(cores GREATER_EQUAL 8)
    target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--threads=4>)
  endif()
endfunction()
