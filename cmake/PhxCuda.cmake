# SPDX-License-Identifier: Apache-2.0
# The CUDA backend is a module of its own (kernels/cuda): built where nvcc is, loaded at run time.  Its tests compile
# the same sources as C++ for the processor (tests/emu), wherever they run.
set(PHX_CUDA AUTO CACHE STRING "The CUDA backend: AUTO (when nvcc is there), ON or OFF")
set_property(CACHE PHX_CUDA PROPERTY STRINGS AUTO ON OFF)
include(CheckLanguage)

set(PHX_HAS_CUDA OFF)
set(why_no_cuda "PHX_CUDA=OFF")
if(NOT PHX_CUDA STREQUAL "OFF" AND (PHX_SANITIZE OR PHX_FUZZ))
  set(why_no_cuda "not with sanitizers")
elseif(NOT PHX_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_ARCHITECTURES) # before the language, which would set the compiler's own default
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90-real;100-real;100-virtual" CACHE STRING "compute capabilities")
  endif()
  find_program(PHX_NVCC nvcc HINTS ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
  if(PHX_NVCC AND NOT CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_COMPILER ${PHX_NVCC})
  endif()
  set(why_no_cuda "nvcc was not found")
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(PHX_HAS_CUDA ON)
  endif()
endif()
if(PHX_HAS_CUDA)
  message(STATUS "CUDA backend: on (CUDA ${CMAKE_CUDA_COMPILER_VERSION}, ${CMAKE_CUDA_ARCHITECTURES})")
elseif(PHX_CUDA STREQUAL "ON")
  message(FATAL_ERROR "PHX_CUDA=ON: ${why_no_cuda}")
else()
  message(STATUS "CUDA backend: off (${why_no_cuda})")
endif()

if(PHX_TESTS AND NOT PHX_FUZZ AND PHX_PARTS STREQUAL "all")
  check_language(CXX)
  if(NOT CMAKE_CXX_COMPILER)
    message(FATAL_ERROR "no C++ compiler for the emulated CUDA device: install g++ or configure with -DPHX_TESTS=OFF")
  endif()
  enable_language(CXX)
  if(PHX_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${PHX_CCACHE})
  endif()
endif()

# phx_cuda_module(target directory): the module, out of the sources in kernels/cuda/sources.cmake.
include(${CMAKE_SOURCE_DIR}/kernels/cuda/sources.cmake)
function(phx_cuda_module target directory)
  list(TRANSFORM PHX_CUDA_SOURCES PREPEND ${CMAKE_SOURCE_DIR}/kernels/cuda/ OUTPUT_VARIABLE sources)
  add_library(${target} MODULE ${sources} ${CMAKE_SOURCE_DIR}/kernels/team.c
    ${CMAKE_SOURCE_DIR}/kernels/memory.c)
  target_link_libraries(${target} PRIVATE phx_warnings Threads::Threads)
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME phalanx_cuda LIBRARY_OUTPUT_DIRECTORY ${directory}
    C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden
    CXX_STANDARD 17 CUDA_STANDARD 17)
endfunction()
