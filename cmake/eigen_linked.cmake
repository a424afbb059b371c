# SPDX-License-Identifier: Apache-2.0
# corematching::eigen_linked: the Eigen backend as one body, for whatever the project's flags say, on OpenMP's threads
# where the compiler has them. Used inside the project and, installed, by find_package; then it builds in the project of
# whoever asked. Nothing is built unless a target links it.
if(TARGET corematching::eigen_linked)
  return()
endif()
include(${CMAKE_CURRENT_LIST_DIR}/linked_body.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/linked_models.cmake)

find_package(OpenMP QUIET COMPONENTS CXX)
set(corematching_openmp "")
if(TARGET OpenMP::OpenMP_CXX)
  set(corematching_openmp OpenMP::OpenMP_CXX)
endif()
corematching_body(eigen SOURCE backend/eigen/body.cpp LINK corematching::eigen ${corematching_openmp})

file(CONFIGURE OUTPUT corematching_eigen_linked.cpp CONTENT "// The body is an object file.\n" @ONLY)
add_library(corematching_eigen_linked STATIC EXCLUDE_FROM_ALL
  ${CMAKE_CURRENT_BINARY_DIR}/corematching_eigen_linked.cpp)
add_library(corematching::eigen_linked ALIAS corematching_eigen_linked)
corematching_put_body(corematching_eigen_linked eigen)
corematching_models_on(corematching_host_models host_space)
target_link_libraries(corematching_eigen_linked
  PUBLIC corematching::model corematching_host_models PRIVATE ${corematching_openmp})
