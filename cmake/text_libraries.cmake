# SPDX-License-Identifier: Apache-2.0
# corematching::oniguruma and corematching::utf8proc, what the component `text` links; neither where one is missing. Here
# and in the project of whoever finds the package: their own packages have no CMake files that one could rely on.
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(corematching_oniguruma QUIET IMPORTED_TARGET "oniguruma >= 6.9.8")
  pkg_check_modules(corematching_utf8proc QUIET IMPORTED_TARGET "libutf8proc >= 2.6")
endif()
if(TARGET PkgConfig::corematching_oniguruma AND TARGET PkgConfig::corematching_utf8proc
   AND NOT TARGET corematching::oniguruma)
  foreach(library IN ITEMS oniguruma utf8proc)
    add_library(corematching::${library} INTERFACE IMPORTED GLOBAL)
    target_link_libraries(corematching::${library} INTERFACE PkgConfig::corematching_${library})
  endforeach()
endif()
