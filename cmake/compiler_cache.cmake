# SPDX-License-Identifier: Apache-2.0
# What was compiled before is not compiled again, where ccache is found: in no other checkout of the same files either,
# wherever it lies. Only where this is the project that is built, and before the first target.
if(NOT PROJECT_IS_TOP_LEVEL OR DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  return()
endif()
find_program(COREMATCHING_CCACHE ccache)
if(COREMATCHING_CCACHE)
  foreach(language IN ITEMS CXX CUDA)
    set(CMAKE_${language}_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${COREMATCHING_CCACHE})
  endforeach()
endif()
