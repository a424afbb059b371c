# SPDX-License-Identifier: Apache-2.0
# corematching_models_on(<target> <space>): layers and models on linked backends in `space`, compiled once.
set(corematching_models_dir ${CMAKE_CURRENT_LIST_DIR})
function(corematching_models_on target corematching_space)
  if(TARGET ${target})
    return()
  endif()
  configure_file(${corematching_models_dir}/linked_models.cpp.in ${target}.cpp @ONLY)
  add_library(${target} STATIC EXCLUDE_FROM_ALL ${CMAKE_CURRENT_BINARY_DIR}/${target}.cpp)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${target} PUBLIC corematching::model)
endfunction()
