# SPDX-License-Identifier: Apache-2.0
# corematching::cuda_linked: the CUDA backend as one translation unit that nvcc compiles, for programs in plain C++.
# Used inside the project and, installed, by find_package; then it builds in the project of whoever asked, for the
# architectures of that project, which enables CUDA (the package's configuration asks). Nothing is built unless a target
# links it.
if(TARGET corematching::cuda_linked)
  return()
endif()
include(${CMAKE_CURRENT_LIST_DIR}/linked_models.cmake)

get_target_property(corematching_include_dir corematching::core INTERFACE_INCLUDE_DIRECTORIES)
string(REGEX REPLACE "^\\$<BUILD_INTERFACE:([^>]*)>.*$" "\\1" corematching_include_dir "${corematching_include_dir}")

add_library(corematching_cuda_linked STATIC EXCLUDE_FROM_ALL
  ${corematching_include_dir}/corematching/backend/cuda/body.cu)
add_library(corematching::cuda_linked ALIAS corematching_cuda_linked)
set_target_properties(corematching_cuda_linked PROPERTIES POSITION_INDEPENDENT_CODE ON)
corematching_models_on(corematching_device_models device_space)
target_link_libraries(corematching_cuda_linked
  PUBLIC corematching::model corematching_device_models PRIVATE corematching::cuda)
