/* As much of ONNX Runtime's C API as runtime/examples/c/ needs, for machines that have the library
   of the Python wheel and not the header.

   The table of functions only ever grows at its end, so each has had its place since version 1:
   `slots` stand for those in between. Source: the documentation of the C API. */

#ifndef STAND_IN_ONNXRUNTIME_C_API
#define STAND_IN_ONNXRUNTIME_C_API

#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 16

typedef struct OrtEnv OrtEnv;
typedef struct OrtStatus OrtStatus;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;

typedef enum { ORT_LOGGING_LEVEL_FATAL = 4 } OrtLoggingLevel;
typedef enum { OrtArenaAllocator = 1 } OrtAllocatorType;
typedef enum { OrtMemTypeDefault = 0 } OrtMemType;
typedef enum {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE = 11
} ONNXTensorElementDataType;

typedef OrtStatus *Call;

typedef struct {
  void *slots_0[2];
  const char *(*GetErrorMessage)(const OrtStatus *);                              /* 2 */
  Call (*CreateEnv)(OrtLoggingLevel, const char *, OrtEnv **);                    /* 3 */
  void *slots_4[3];
  Call (*CreateSession)(const OrtEnv *, const char *, const OrtSessionOptions *,
                        OrtSession **);                                           /* 7 */
  void *slots_8[1];
  Call (*Run)(OrtSession *, const OrtRunOptions *, const char *const *,
              const OrtValue *const *, size_t, const char *const *, size_t,
              OrtValue **);                                                       /* 9 */
  Call (*CreateSessionOptions)(OrtSessionOptions **);                             /* 10 */
  void *slots_11[13];
  Call (*SetIntraOpNumThreads)(OrtSessionOptions *, int);                         /* 24 */
  void *slots_25[8];
  Call (*SessionGetInputTypeInfo)(const OrtSession *, size_t, OrtTypeInfo **);    /* 33 */
  void *slots_34[15];
  Call (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *, void *, size_t, const int64_t *,
                                         size_t, ONNXTensorElementDataType,
                                         OrtValue **);                            /* 49 */
  void *slots_50[1];
  Call (*GetTensorMutableData)(OrtValue *, void **);                              /* 51 */
  void *slots_52[3];
  Call (*CastTypeInfoToTensorInfo)(const OrtTypeInfo *,
                                   const OrtTensorTypeAndShapeInfo **);           /* 55 */
  void *slots_56[6];
  Call (*GetDimensions)(const OrtTensorTypeAndShapeInfo *, int64_t *, size_t);    /* 62 */
  void *slots_63[1];
  Call (*GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo *, size_t *); /* 64 */
  Call (*GetTensorTypeAndShape)(const OrtValue *, OrtTensorTypeAndShapeInfo **);  /* 65 */
  void *slots_66[3];
  Call (*CreateCpuMemoryInfo)(OrtAllocatorType, OrtMemType, OrtMemoryInfo **);    /* 69 */
  void *slots_70[22];
  void (*ReleaseEnv)(OrtEnv *);                                                   /* 92 */
  void *slots_93[1];
  void (*ReleaseMemoryInfo)(OrtMemoryInfo *);                                     /* 94 */
  void (*ReleaseSession)(OrtSession *);                                           /* 95 */
  void (*ReleaseValue)(OrtValue *);                                               /* 96 */
  void *slots_97[1];
  void (*ReleaseTypeInfo)(OrtTypeInfo *);                                         /* 98 */
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *);             /* 99 */
  void (*ReleaseSessionOptions)(OrtSessionOptions *);                             /* 100 */
} OrtApi;

typedef struct {
  const OrtApi *(*GetApi)(uint32_t version);
  const char *(*GetVersionString)(void);
} OrtApiBase;

const OrtApiBase *OrtGetApiBase(void);

#endif
