# SPDX-License-Identifier: Apache-2.0
# COREMATCHING_CUDA decides whether the component `cuda` is added to those that are wanted: AUTO where the CUDA Toolkit
# is found, ON (and an error where it is not), OFF. Another project that adds this one must ask for it.
if(PROJECT_IS_TOP_LEVEL)
  set(cuda_default AUTO)
else()
  set(cuda_default OFF)
endif()
set(COREMATCHING_CUDA ${cuda_default} CACHE STRING "Offer the CUDA backend: AUTO (where the toolkit is found), ON or OFF")
set_property(CACHE COREMATCHING_CUDA PROPERTY STRINGS AUTO ON OFF)
string(TOUPPER "${COREMATCHING_CUDA}" cuda_wanted)
if(NOT cuda_wanted MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "COREMATCHING_CUDA is '${COREMATCHING_CUDA}'; it may be AUTO, ON or OFF.")
endif()
if("cuda" IN_LIST wanted OR "cuda_linked" IN_LIST wanted)
  set(cuda_wanted ON)
endif()
list(REMOVE_ITEM wanted cuda cuda_linked)

if(NOT cuda_wanted STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX} AND EXISTS /usr/local/cuda/bin/nvcc)
    set(CMAKE_CUDA_COMPILER /usr/local/cuda/bin/nvcc)  # where NVIDIA installs it, which is not on every PATH
  endif()
  # Of our own programs, one, since each takes minutes: this machine's, or one that newer devices translate. Whoever
  # includes the headers chooses for theirs.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    execute_process(COMMAND nvidia-smi -L RESULT_VARIABLE has_no_device OUTPUT_QUIET ERROR_QUIET)
    if(has_no_device)
      set(CMAKE_CUDA_ARCHITECTURES 80)
    else()
      set(CMAKE_CUDA_ARCHITECTURES native)
    endif()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  find_package(CUDAToolkit 12 QUIET)
  if(CMAKE_CUDA_COMPILER AND CUDAToolkit_FOUND)
    enable_language(CUDA)
    list(APPEND wanted cuda)
  elseif(cuda_wanted STREQUAL "ON")
    message(FATAL_ERROR "Component 'cuda' of corematching needs the CUDA Toolkit 12 or newer (nvcc, cudart, cuBLAS). "
      "Install it and name its compiler with -DCMAKE_CUDA_COMPILER=.../nvcc, or set COREMATCHING_CUDA=OFF.")
  endif()
endif()
