# SPDX-License-Identifier: Apache-2.0
# Headers, one export per part (so that a consumer of one part never meets the dependencies of another), and the
# package files.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/corematching)
get_property(parts GLOBAL PROPERTY corematching_parts)
foreach(part IN LISTS parts)
  install(TARGETS corematching_${part} EXPORT corematching-${part} FILE_SET HEADERS)
  install(EXPORT corematching-${part} NAMESPACE corematching:: DESTINATION ${package_dir})
endforeach()

configure_package_config_file(cmake/corematchingConfig.cmake.in ${PROJECT_BINARY_DIR}/corematchingConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/corematchingConfigVersion.cmake
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${PROJECT_BINARY_DIR}/corematchingConfig.cmake ${PROJECT_BINARY_DIR}/corematchingConfigVersion.cmake
  DESTINATION ${package_dir})
# What builds the linked components in the project of whoever asks for them.
install(FILES cmake/linked_body.cmake cmake/linked_models.cmake cmake/linked_models.cpp.in DESTINATION ${package_dir})
if(TARGET corematching::text)
  install(FILES cmake/text_libraries.cmake DESTINATION ${package_dir})
endif()
if(TARGET corematching::eigen_linked)
  install(FILES cmake/eigen_linked.cmake DESTINATION ${package_dir})
endif()
if(TARGET corematching::cpu_linked)
  install(FILES cmake/cpu_linked.cmake cmake/cpu_bodies.cpp.in DESTINATION ${package_dir})
endif()
if(TARGET corematching::cuda_linked)
  install(FILES cmake/cuda_linked.cmake DESTINATION ${package_dir})
endif()
