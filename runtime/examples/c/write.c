/* Writes a text with a sampler: one run of ONNX Runtime is the whole text.

     train-export convert model.onnx --sampler
     cc -o write write.c -I ONNXRUNTIME/include -L ONNXRUNTIME/lib -lonnxruntime
     ./write model.sampler.onnx "Once upon" 200 7 0.8

   The arguments are the file, the start, how many characters to write, the seed and the
   temperature. The text is the one that chargen-ort writes with the same seed. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_c_api.h"

static const OrtApi *ort;
static OrtMemoryInfo *memory;

/* End the program with the message of a call that failed. */
static void check(OrtStatus *status) {
  if (status == NULL) return;
  fprintf(stderr, "write: %s\n", ort->GetErrorMessage(status));
  exit(1);
}

/* A tensor over numbers that lie at `data`, `count` of them of `size` bytes each. */
static OrtValue *tensor(void *data, size_t count, size_t size, ONNXTensorElementDataType type,
                        const int64_t *shape, size_t rank) {
  OrtValue *value = NULL;
  check(ort->CreateTensorWithDataAsOrtValue(memory, data, count * size, shape, rank, type, &value));
  return value;
}

/* An option: a tensor of one number. */
static OrtValue *option(void *number, ONNXTensorElementDataType type) {
  static const int64_t one[] = {1};
  return tensor(number, 1, 8, type, one, 1);
}

/* The code points of UTF-8 text; returns how many there are. */
static int64_t decode(const char *text, int64_t *points) {
  int64_t count = 0;
  for (const unsigned char *at = (const unsigned char *)text; *at; count++) {
    int more = *at >= 0xf0 ? 3 : *at >= 0xe0 ? 2 : *at >= 0xc0 ? 1 : 0;
    int64_t point = more ? *at & (0x3f >> more) : *at;
    for (at++; more && (*at & 0xc0) == 0x80; more--, at++) point = point << 6 | (*at & 0x3f);
    points[count] = point;
  }
  return count;
}

/* Print a code point as UTF-8. */
static void print(int64_t point) {
  if (point < 0x80) {
    putchar((int)point);
    return;
  }
  int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  putchar((int)((0xff00 >> (more + 1) & 0xff) | point >> 6 * more));
  while (more--) putchar((int)(0x80 | (point >> 6 * more & 0x3f)));
}

int main(int count, char **arguments) {
  if (count != 6) {
    fprintf(stderr, "write: give FILE START LENGTH SEED TEMPERATURE\n");
    return 2;
  }
  int64_t *prompt = malloc((strlen(arguments[2]) + 1) * sizeof *prompt);
  int64_t time = decode(arguments[2], prompt);
  int64_t length = strtoll(arguments[3], NULL, 10);
  uint64_t seed = strtoull(arguments[4], NULL, 10);
  double temperature = strtod(arguments[5], NULL);
  int64_t drawn = 0, top_k = 0; /* 0 is off */
  double top_p = 1, min_p = 0;  /* so are these */

  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (ort == NULL) {
    fprintf(stderr, "write: the library of ONNX Runtime is older than its header\n");
    return 1;
  }
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "write", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->SetIntraOpNumThreads(options, 1));
  check(ort->CreateSession(env, arguments[1], options, &session));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));

  /* The state before a text is zeros; its sizes are those of the input "hidden". */
  OrtTypeInfo *info;
  const OrtTensorTypeAndShapeInfo *shape_info;
  int64_t shape[3];
  check(ort->SessionGetInputTypeInfo(session, 1, &info));
  check(ort->CastTypeInfoToTensorInfo(info, &shape_info));
  check(ort->GetDimensions(shape_info, shape, 3));
  shape[0] = 1; /* one row */
  size_t states = (size_t)(shape[1] * shape[2]);
  float *hidden = calloc(states, sizeof *hidden);

  const char *inputs[] = {"prompt",      "hidden", "seed",  "drawn", "length",
                          "temperature", "top_k",  "top_p", "min_p"};
  const char *outputs[] = {"code_points", "next_hidden"};
  const int64_t prompt_shape[] = {1, time};
  OrtValue *given[] = {
      tensor(prompt, (size_t)time, 8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, prompt_shape, 2),
      tensor(hidden, states, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, shape, 3),
      option(&seed, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64), /* its bits */
      option(&drawn, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
      option(&length, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
      option(&temperature, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE),
      option(&top_k, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64),
      option(&top_p, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE),
      option(&min_p, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE),
  };
  OrtValue *made[2] = {NULL, NULL};
  check(ort->Run(session, NULL, inputs, (const OrtValue *const *)given, 9, outputs, 2, made));

  OrtTensorTypeAndShapeInfo *made_info;
  size_t written;
  int64_t *points;
  check(ort->GetTensorTypeAndShape(made[0], &made_info));
  check(ort->GetTensorShapeElementCount(made_info, &written));
  check(ort->GetTensorMutableData(made[0], (void **)&points));
  for (size_t index = 0; index < written && points[index] >= 0; index++) print(points[index]);
  putchar('\n'); /* -1 is the end of a text */

  ort->ReleaseTensorTypeAndShapeInfo(made_info);
  ort->ReleaseTypeInfo(info);
  for (int index = 0; index < 9; index++) ort->ReleaseValue(given[index]);
  for (int index = 0; index < 2; index++) ort->ReleaseValue(made[index]);
  ort->ReleaseMemoryInfo(memory);
  ort->ReleaseSession(session);
  ort->ReleaseSessionOptions(options);
  ort->ReleaseEnv(env);
  free(prompt);
  free(hidden);
  return 0;
}
